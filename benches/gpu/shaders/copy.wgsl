// Reads every word once and writes it once.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) invocation: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    let length = arrayLength(&words);
    let stride = workgroups.x * 256u;
    var at = invocation.x;
    // Four loads in the air at once, as in read.wgsl.
    for (; at + 3u * stride < length; at += 4u * stride) {
        let first = words[at];
        let second = words[at + stride];
        let third = words[at + 2u * stride];
        let fourth = words[at + 3u * stride];
        copied[at] = first;
        copied[at + stride] = second;
        copied[at + 2u * stride] = third;
        copied[at + 3u * stride] = fourth;
    }
    for (; at < length; at += stride) {
        copied[at] = words[at];
    }
}
