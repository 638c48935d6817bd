//! The nemesis: what goes wrong on a bench, and when. [`plan`] decides by a seed and is pure, [`act`] carries it out.

pub mod act;
pub mod fault;
pub mod plan;
mod repair;
