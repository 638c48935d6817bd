//! The API as its clients see it: a server on loopback whose writes go straight into the view.

mod access;
mod admission;
mod apply;
mod client;
mod credentials;
mod definitions;
mod ephemeral;
mod fuzz;
mod http;
mod kubectl;
mod metrics;
mod openapi;
mod schemas;
mod server;
mod streams;
