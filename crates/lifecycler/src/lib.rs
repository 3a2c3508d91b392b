//! One instance's life in a ring: it registers, chooses tokens, keeps its entry fresh, and leaves.
//!
//! [`machine`] decides, without I/O; [`Lifecycler`] is its shell, a service; [`Handle`] is what the rest of a process holds.
//! [`delegate`] is how a service of one's own decides for itself; [`forget`] is about others that are gone, [`drain`] about
//! going oneself.

pub mod address;
pub mod delegate;
pub mod drain;
mod error;
pub mod forget;
mod handle;
mod lifecycler;
pub mod machine;
mod metrics;
mod options;
mod readiness;
pub mod tokens_file;

pub use self::delegate::{
    Delegate, Delegates, InstanceRegister, LeaveOnStopping, Place, Registration, TokensPersistency,
};
pub use self::drain::{Condition, Drain, Missing};
pub use self::error::Error;
pub use self::forget::AutoForget;
pub use self::handle::{Handle, Status};
pub use self::lifecycler::{Lifecycler, new};
pub use self::options::{Options, RegisteredAt, TokenChoice};
