//! Claviger makes an API key a resource.

pub mod api;
pub mod key;
pub mod lifecycle;
