//! A bare Docker engine, driven with nothing in between: what gaggle's times are compared with.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Starting a container on a machine that starts many.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// One connection after another to an engine's socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine that listens here.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// What a pod of one container is in Docker's terms: a container that holds the network and the IPC namespace,
    /// and one that joins it. Returns their ids when both run.
    pub fn run_pair(&self, command: &[&str]) -> Result<[String; 2]> {
        let pause = self.create(&json!({
            "Image": "busybox:latest", "Cmd": ["sleep", "100000"], "HostConfig": { "IpcMode": "shareable" },
        }))?;
        self.post(&format!("/containers/{pause}/start"), &Value::Null)?;
        let mode = format!("container:{pause}");
        let main = self.create(&json!({
            "Image": "busybox:latest", "Cmd": command, "HostConfig": { "NetworkMode": mode, "IpcMode": mode },
        }))?;
        self.post(&format!("/containers/{main}/start"), &Value::Null)?;
        Ok([pause, main])
    }

    /// Runs such a pair to the end of its second container.
    pub fn run_pair_to_end(&self, command: &[&str]) -> Result<()> {
        let [pause, main] = self.run_pair(command)?;
        self.post(&format!("/containers/{main}/wait"), &Value::Null)?;
        self.post(&format!("/containers/{pause}/kill"), &Value::Null)?;
        Ok(())
    }

    /// How many containers of an image run.
    pub fn running(&self, image: &str) -> Result<usize> {
        let filters = json!({"ancestor": [image], "status": ["running"]}).to_string();
        let encoded: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let list = self.request("GET", &format!("/containers/json?filters={encoded}"), &Value::Null)?;
        Ok(list.as_array().context("an engine that lists no containers")?.len())
    }

    fn create(&self, container: &Value) -> Result<String> {
        let made = self.post("/containers/create", container)?;
        Ok(made["Id"].as_str().context("an engine that names no id")?.to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.request("POST", path, body)
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let stream = UnixStream::connect(&self.socket).context("reaching the engine")?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        // 1.0, so that the answer ends with the connection.
        write!(
            &stream,
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let mut rest = String::new();
        reader.read_to_string(&mut rest)?;
        let answer = rest.split_once("\r\n\r\n").map_or("", |(_, answer)| answer);
        ensure!(status.contains(" 20"), "{path}: {} {answer}", status.trim());
        if answer.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(answer).with_context(|| format!("{path} was answered {answer}"))
    }
}
