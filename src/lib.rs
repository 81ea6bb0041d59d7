//! Claviger makes an API key a resource.

pub mod key;
