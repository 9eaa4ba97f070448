// The workgroup's own totals, laid out like the output.

var<workgroup> local_totals: array<atomic<u32>, LOCAL_WORDS>;

fn add_to_local_totals(at: u32, limbs: u32, value: vec4<u32>) {
  var carry = 0u;
  for (var limb = 0u; limb < limbs; limb++) {
    let part = value[limb];
    let sum = part + carry;
    let wrapped = sum < part;
    carry = 0u;
    if (sum != 0u) {
      let before = atomicAdd(&local_totals[at + limb], sum);
      carry = pick_word(before + sum < before);
    }
    carry |= pick_word(wrapped);
  }
}

fn local_total(at: u32, limbs: u32) -> vec4<u32> {
  var value = vec4<u32>(0u);
  for (var limb = 0u; limb < limbs; limb++) {
    value[limb] = atomicLoad(&local_totals[at + limb]);
  }
  return value;
}
