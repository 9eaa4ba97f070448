//! Choices that programs make by their data, taken from them: tests run one plan every way there is.

use crate::bind::Width;

/// What a kernel may not choose. The default leaves it every choice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Forced {
    /// How the host finds groups; a plan without keys has none to find.
    pub groups: Option<ForcedGroups>,
    /// No computed value is narrower than this many bits: 32, 64 or 128.
    pub value_bits: u8,
    /// Host sums of small numbers do not share words with each other and with counts.
    pub unpacked: bool,
    /// Rows are looked at even where statistics know the answer.
    pub looks_at_rows: bool,
    /// Device sums have four limbs.
    pub all_limbs: bool,
    /// Device kernels add up in device memory at once, not in workgroups' first.
    pub global_totals: bool,
}

/// How the host finds groups.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForcedGroups {
    /// By the code of their keys, while there are at most [`FORCED_SLOTS_MAX`] codes.
    Direct,
    /// The same, each group's rows as a mask, where there are few enough and only sums.
    Few,
    /// By a hash of it.
    Hash,
}

/// Codes up to which [`ForcedGroups::Direct`] holds, whatever the rows.
pub(crate) const FORCED_SLOTS_MAX: usize = 1 << 16;

impl Forced {
    pub(crate) fn width(self) -> Width {
        match self.value_bits {
            0..=32 => Width::U32,
            33..=64 => Width::I64,
            _ => Width::I128,
        }
    }
}
