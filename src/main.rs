//! `claviger`

fn main() {}
