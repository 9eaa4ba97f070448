// Reads every word once: the least a kernel over a buffer can take. The sums keep the compiler from leaving it out.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
// One a workgroup.
@group(0) @binding(1) var<storage, read_write> totals: array<u32>;

var<workgroup> total: atomic<u32>;

@compute @workgroup_size(256)
fn main(
    @builtin(global_invocation_id) invocation: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let length = arrayLength(&words);
    var own = vec4<u32>(0u);
    let stride = workgroups.x * 256u;
    var at = invocation.x;
    // Four loads in the air at once, however few invocations the card holds.
    for (; at + 3u * stride < length; at += 4u * stride) {
        own += words[at] + words[at + stride] + words[at + 2u * stride] + words[at + 3u * stride];
    }
    for (; at < length; at += stride) {
        own += words[at];
    }
    atomicAdd(&total, own.x + own.y + own.z + own.w);
    workgroupBarrier();
    if (local == 0u) {
        totals[workgroup.x] = atomicLoad(&total);
    }
}
