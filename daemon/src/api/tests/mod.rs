//! The API as its clients see it: a server on loopback whose writes go straight into the view.

mod http;
mod kubectl;
mod server;
