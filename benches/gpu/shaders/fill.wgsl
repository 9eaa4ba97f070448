// Writes what read.wgsl adds up: word 4k to 4k + 3 hold k * 2654435761, modulo 2^32.

@group(0) @binding(0) var<storage, read_write> filled: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) invocation: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    let length = arrayLength(&filled);
    for (var at = invocation.x; at < length; at += workgroups.x * 256u) {
        filled[at] = vec4<u32>(at * 2654435761u);
    }
}
