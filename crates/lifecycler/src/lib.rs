//! One instance's life in a ring: it registers, chooses tokens, keeps its entry fresh, and leaves.
//!
//! [`machine`] decides, without I/O; [`Lifecycler`] is its shell, a service; [`Handle`] is what the rest of a process holds.

pub mod address;
mod error;
mod handle;
mod lifecycler;
pub mod machine;
mod metrics;
mod options;
mod readiness;
pub mod tokens_file;

pub use self::error::Error;
pub use self::handle::{Handle, Status};
pub use self::lifecycler::{Lifecycler, new};
pub use self::options::{Options, RegisteredAt, TokenChoice};
