//! A flash-sale system: a limited stock, many more buyers than units, each unit sold exactly once.
//!
//! The layers, from the outside in; each calls only the next:
//!
//! - [`http`]: the sockets, and what they may do.
//! - [`handlers`]: HTTP. Extract, one service call, reply.
//! - [`services`]: the rules of the sale. [`consumers`] call them too, from the other end of the queue.
//! - [`stock`] admits purchases, [`queue`] carries them, [`db`] decides and keeps them.
//!
//! [`app`] puts them together, [`config`] says how, [`error`] is what they fail with, [`model`] what they talk about,
//! [`telemetry`] what they tell the operator; [`supervision`] watches the tasks behind it all.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that fails may panic"))]

/// A place where the fault tests let the process die: `FAILPOINTS=name=return`, in builds with the feature `failpoints`.
#[cfg(feature = "failpoints")]
macro_rules! crash_point {
    ($name:literal) => {
        let _: Option<()> = fail::eval($name, |_| std::process::abort());
    };
}
#[cfg(not(feature = "failpoints"))]
macro_rules! crash_point {
    ($name:literal) => {};
}

/// Whether a step is to fail here on purpose, in the same builds and under the same names.
#[cfg(feature = "failpoints")]
macro_rules! fails {
    ($name:literal) => {
        fail::eval($name, |_| ()).is_some()
    };
}
#[cfg(not(feature = "failpoints"))]
macro_rules! fails {
    ($name:literal) => {
        false
    };
}

/// Prints a line to standard output.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::output::print(format_args!("{}\n", format_args!($($line)*)))
    };
}

pub mod app;
#[cfg(feature = "bench")]
pub mod bench;
pub mod cli;
mod complaint;
pub mod config;
pub mod consumers;
pub mod data_dir;
pub mod db;
pub mod error;
pub mod handlers;
pub mod http;
pub mod model;
mod output;
pub mod process;
pub mod queue;
pub mod secret_file;
pub mod services;
pub mod stock;
pub mod supervision;
pub mod telemetry;
pub mod tls;
