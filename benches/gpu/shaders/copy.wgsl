// Reads every word once and writes it once.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) invocation: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    let length = arrayLength(&words);
    for (var at = invocation.x; at < length; at += workgroups.x * 256u) {
        copied[at] = words[at];
    }
}
