//! One loop, three machine codes: the portable one, AVX2 and AVX-512, chosen at run time.
//!
//! Loops are written plainly over slices and vectorised by the compiler; only the instruction set differs.

/// What this processor can do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best level of this processor; the answer is cached by the standard library.
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            return Level::Avx512;
        }
        if has!("avx2") {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// Asks for memory that is read soon. The processor's own prefetchers stop at the end of a page and need a few misses to
/// start on the next; blocks of several columns are all such starts.
#[inline]
pub(crate) fn prefetch<T: bytemuck::NoUninit>(lanes: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytemuck::cast_slice::<T, u8>(lanes).chunks(CACHE_LINE_BYTES) {
        // SAFETY: a hint; it reads nothing and faults on no address, and this one is inside `lanes`.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = lanes;
}

/// Rows ahead of one whose state is asked for: as long as memory takes.
const ROWS_AHEAD: usize = 16;

/// Asks for the state of a row to come: groups lie anywhere, and a row's work is far shorter than a miss.
#[inline(always)]
pub(crate) fn prefetch_far<T>(states: &[T], groups: &[usize], row: usize) {
    if let Some(state) = groups.get(row + ROWS_AHEAD).and_then(|group| states.get(*group)) {
        prefetch_place(state);
    }
}

/// Asks for a place anywhere in memory that is read or written soon.
#[inline(always)]
pub(crate) fn prefetch_place<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>()).step_by(CACHE_LINE_BYTES) {
        // SAFETY: a hint; it reads nothing and faults on no address, and this one is inside the place.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(place).cast::<i8>().add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// Defines functions whose bodies are compiled once for each [`Level`].
macro_rules! vectorised {
    ($( $(#[$meta:meta])* fn $name:ident [$($generic:ident : $bound:path),*] ( $($argument:ident : $type:ty),* $(,)? ) $(-> $result:ty)? $body:block )+) => { $(
        $(#[$meta])*
        #[inline]
        pub(crate) fn $name<$($generic: $bound),*>($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn portable<$($generic: $bound),*>($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2<$($generic: $bound),*>($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512<$($generic: $bound),*>($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }
                match crate::simd::level() {
                    // SAFETY: `level` returns a level only where the processor has all its features.
                    crate::simd::Level::Avx512 => unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    crate::simd::Level::Avx2 => unsafe { avx2($($argument),*) },
                    crate::simd::Level::Portable => portable($($argument),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            portable($($argument),*)
        }
    )+ };
}
pub(crate) use vectorised;
