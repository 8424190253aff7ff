//! The domain: what may a machine boot, and why?
//!
//! Everything below this module is pure: no `async`, no clock, no environment, no client, no logging. What there is to say is part
//! of the value returned, so every answer can be tested as a value.

pub mod agent;
pub mod artifact;
pub mod content;
pub mod decision;
pub mod environment;
pub mod host_file;
pub mod host_override;
pub mod inventory;
pub mod kernel_arguments;
pub mod local_disk;
pub mod mac;
pub mod name;
pub mod policy;
pub mod precedence;
pub mod render;
pub mod script;
pub mod script_check;
pub mod selector;
pub mod standing;
pub mod template;
pub mod way;
