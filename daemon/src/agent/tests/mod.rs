//! The agent as a whole: with a fake engine, and, where `GAGGLE_TEST_DOCKER` names the socket of one, with a
//! real one.

mod fake_engine;
mod group;
mod real_engine;
