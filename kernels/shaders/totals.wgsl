// Unsigned totals of `limbs` words. Written once for the output, and once for workgroup memory under the name `local_totals`: WGSL
// passes no pointers to either.
// A carry that one invocation takes out of a word is added by that same invocation to the next word, so after all
// invocations are done every total is exact, whatever the order.

fn add_to_totals(at: u32, limbs: u32, value: vec4<u32>) {
  var carry = 0u;
  for (var limb = 0u; limb < limbs; limb++) {
    let part = value[limb];
    let sum = part + carry;
    let wrapped = sum < part;
    carry = 0u;
    if (sum != 0u) {
      let before = atomicAdd(&totals[at + limb], sum);
      carry = pick_word(before + sum < before);
    }
    carry |= pick_word(wrapped);
  }
}
