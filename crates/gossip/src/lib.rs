//! A replicated store of small registers that needs no server: every member has all of it.
//!
//! Without clocks, sockets, threads or tasks, but for one module: what is here is given bytes and time, and returns bytes and
//! deadlines, so that a simulated network runs the very code that a real one does. It knows neither rings nor values.
//!
//! - [`register`]: what is stored, and which of two writes counts; [`store`]: all of it, with digests that tell two copies apart
//! - [`queue`]: what is still to be told to others; [`peers`]: whom to tell; [`wire`]: how; [`seal`]: so that nobody
//!   else reads or forges it
//! - [`api`]: what goes into a member and what comes out; [`node`]: what happens in between; [`member`]: all of it sealed
//! - [`swim`]: who is alive, on `foca`; [`id`]: who is who; [`time`]: the two times, and a clock that orders writes
//! - `driver`, a feature: sockets, streams and a task for a member, on tokio
//!
//! What is promised under which faults, and how it is tested, is in [`promises`].

pub mod api;
#[cfg(feature = "driver")]
pub mod driver;
pub mod id;
pub mod member;
pub mod node;
pub mod peers;
#[doc = include_str!("promises.md")]
pub mod promises {}
pub mod queue;
pub mod register;
pub mod seal;
pub mod sim;
pub mod store;
pub mod swim;
mod sync;
pub mod time;
pub mod wire;
