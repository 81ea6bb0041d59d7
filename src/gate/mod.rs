//! May this key pass? The gate watches ApiKeys and ApiKeyRoles, and answers proxies and services from memory.

pub mod report;
