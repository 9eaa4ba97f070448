// Doubles by their place in the total order (two words, least significant first), as 128 bits of fixed point in two's complement.
// `unit` is the exponent whose lowest bit is the fixed point's; the host proves that nothing is lost.

fn fixed_point(place: vec2<u32>, unit: u32) -> vec4<u32> {
  let negative = (place.y >> 31u) == 1u;
  let bits = select(place, vec2<u32>(~place.x, place.y ^ 0x7FFFFFFFu), negative);
  let exponent = (bits.y >> 20u) & 0x7FFu;
  let upper = (bits.y & 0xFFFFFu) | select(0x100000u, 0u, exponent == 0u);
  // Of 0 any shift will do.
  let shift = (max(exponent, 1u) - unit) & 127u;
  let bit = shift & 31u;
  // Two steps, since a shift by 32 would not be one.
  let words = vec3<u32>(
    bits.x << bit,
    (upper << bit) | ((bits.x >> 1u) >> (31u - bit)),
    (upper >> 1u) >> (31u - bit));
  var value = vec4<u32>(0u);
  switch shift >> 5u {
    case 0u: { value = vec4<u32>(words, 0u); }
    case 1u: { value = vec4<u32>(0u, words); }
    case 2u: { value = vec4<u32>(0u, 0u, words.xy); }
    default: { value = vec4<u32>(0u, 0u, 0u, words.x); }
  }
  if (negative) {
    return subtract128(vec4<u32>(0u), value);
  }
  return value;
}
