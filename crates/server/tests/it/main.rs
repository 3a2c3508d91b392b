//! Whole processes on real ports, with a toy for a role.

#[cfg(test)]
mod grpc;
#[cfg(test)]
mod life;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod runtime_config;
#[cfg(test)]
mod toy;
