// Exact integers in u32 limbs, least significant first, two's complement: 64 bits as vec2<u32>, 128 bits as vec4<u32>.
// Every operation is modulo its width; the host proves from chunk statistics that nothing is lost.

fn pick_word(condition: bool) -> u32 {
  return select(0u, 1u, condition);
}

fn multiply_words(a: u32, b: u32) -> vec2<u32> {
  let a_low = a & 0xFFFFu;
  let a_high = a >> 16u;
  let b_low = b & 0xFFFFu;
  let b_high = b >> 16u;
  let low = a_low * b_low;
  let cross = a_high * b_low + (low >> 16u);
  let middle = a_low * b_high + (cross & 0xFFFFu);
  return vec2<u32>((middle << 16u) | (low & 0xFFFFu), a_high * b_high + (cross >> 16u) + (middle >> 16u));
}

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + pick_word(low < a.x));
}

fn subtract64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(a.x - b.x, a.y - b.y - pick_word(a.x < b.x));
}

fn multiply64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = multiply_words(a.x, b.x);
  return vec2<u32>(low.x, low.y + a.x * b.y + a.y * b.x);
}

fn unsigned_less64(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn less64(a: vec2<u32>, b: vec2<u32>) -> bool {
  let sign = 0x80000000u;
  return unsigned_less64(vec2<u32>(a.x, a.y ^ sign), vec2<u32>(b.x, b.y ^ sign));
}

fn add128(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
  let low = add64(a.xy, b.xy);
  let carry = pick_word(unsigned_less64(low, a.xy));
  let high = add64(add64(a.zw, b.zw), vec2<u32>(carry, 0u));
  return vec4<u32>(low, high);
}

fn subtract128(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
  let low = subtract64(a.xy, b.xy);
  let borrow = pick_word(unsigned_less64(a.xy, b.xy));
  let high = subtract64(subtract64(a.zw, b.zw), vec2<u32>(borrow, 0u));
  return vec4<u32>(low, high);
}

fn multiply128(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
  var total = vec4<u32>(multiply_words(a.x, b.x), multiply_words(a.y, b.y));
  total = add128(total, vec4<u32>(0u, multiply_words(a.x, b.y), 0u));
  total = add128(total, vec4<u32>(0u, multiply_words(a.y, b.x), 0u));
  total = add128(total, vec4<u32>(0u, 0u, multiply_words(a.x, b.z)));
  total = add128(total, vec4<u32>(0u, 0u, multiply_words(a.z, b.x)));
  total.w += a.x * b.w + a.y * b.z + a.z * b.y + a.w * b.x;
  return total;
}

fn less128(a: vec4<u32>, b: vec4<u32>) -> bool {
  let sign = 0x80000000u;
  let a_high = vec2<u32>(a.z, a.w ^ sign);
  let b_high = vec2<u32>(b.z, b.w ^ sign);
  return unsigned_less64(a_high, b_high) || (all(a_high == b_high) && unsigned_less64(a.xy, b.xy));
}

fn widen64(a: vec2<u32>) -> vec4<u32> {
  let sign = select(0u, 0xFFFFFFFFu, (a.y >> 31u) == 1u);
  return vec4<u32>(a, sign, sign);
}
