//! Who is here, and what everyone should hold a copy of.

pub mod intent;
