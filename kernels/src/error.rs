//! Errors, classed by what the caller must do: take another path, or report a bug.

/// The decision not to run a kernel, in plain English ("SUM over Utf8"). The caller takes another path and shows the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Decline {
    /// Why, short enough for one line of EXPLAIN.
    pub reason: String,
}

impl Decline {
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Why an accumulation ended early. The state it was writing to must be thrown away.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KernelError {
    /// The kernel cannot answer exactly for this data; another path can.
    #[error("declined: {0}")]
    Declined(#[from] Decline),
    /// The device failed (lost, out of memory, a shader rejected); the host kernel can answer.
    #[error("device: {reason}")]
    Device {
        /// What the driver or wgpu said.
        reason: String,
    },
    /// A bug in the caller or in this crate.
    #[error("internal: {reason}")]
    Internal {
        /// The broken invariant.
        reason: String,
    },
}

impl KernelError {
    pub(crate) fn internal(reason: impl Into<String>) -> Self {
        Self::Internal { reason: reason.into() }
    }

    pub(crate) fn device(reason: impl Into<String>) -> Self {
        Self::Device { reason: reason.into() }
    }

    pub(crate) fn declined(reason: impl Into<String>) -> Self {
        Self::Declined(Decline::new(reason))
    }
}
