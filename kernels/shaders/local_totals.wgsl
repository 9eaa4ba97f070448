// The workgroup's own totals, laid out like the output.

var<workgroup> local_totals: array<atomic<u32>, LOCAL_WORDS>;

fn local_total(at: u32, limbs: u32) -> vec4<u32> {
  var value = vec4<u32>(0u);
  for (var limb = 0u; limb < limbs; limb++) {
    value[limb] = atomicLoad(&local_totals[at + limb]);
  }
  return value;
}
