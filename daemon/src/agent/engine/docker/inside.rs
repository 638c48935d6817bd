//! What Docker has no request for: the network and the processes of a container, as this desktop's kernel has them.
//!
//! Only where engine and daemon share a kernel, and the daemon may: a process is taken for a container's only if its
//! control group bears the container's id, since an engine in a machine of its own counts other processes.

use super::Docker;
use bollard::query_parameters::InspectContainerOptions;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A loopback answers at once, or with a full queue never.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Connects to a port on the container's loopback.
pub async fn connect(docker: &Docker, id: &str, port: u16) -> io::Result<TcpStream> {
    let found = docker.client.inspect_container(id, None::<InspectContainerOptions>).await;
    let pid = found.map_err(io::Error::other)?.state.and_then(|state| state.pid).unwrap_or_default();
    let pid = own(docker, id, pid)?;
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    let (to, connected) = oneshot::channel();
    // A thread of its own, which ends in that network: one that others use must stay in ours.
    std::thread::Builder::new().name("pod-port".to_owned()).spawn(move || {
        let _ = to.send(join_and_connect(&network, port));
    })?;
    let stream = connected.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn join_and_connect(network: &File, port: u16) -> io::Result<std::net::TcpStream> {
    setns(network, CloneFlags::CLONE_NEWNET)?;
    let connect =
        |host: IpAddr| std::net::TcpStream::connect_timeout(&SocketAddr::new(host, port), CONNECT_WITHIN);
    // Where neither answers, the first says why: many pods have no IPv6.
    connect(Ipv4Addr::LOCALHOST.into())
        .or_else(|error| connect(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
}

/// Tells a process in the container that its terminal, or what stands for it, is gone.
pub fn hang_up(docker: &Docker, id: &str, pid: i64) -> io::Result<()> {
    let pid = own(docker, id, pid)?;
    Ok(kill(pid, Signal::SIGHUP)?)
}

/// The process, if it is certainly that container's.
fn own(docker: &Docker, id: &str, pid: i64) -> io::Result<Pid> {
    let unknown = |why: &str| io::Error::new(io::ErrorKind::Unsupported, why.to_owned());
    if !docker.host.starts_with("unix://") {
        return Err(unknown("its engine is not on this desktop"));
    }
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1).ok_or_else(|| unknown("it does not run"))?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    if id.is_empty() || !groups.contains(id) {
        return Err(unknown("its processes are not this desktop's to find"));
    }
    Ok(Pid::from_raw(pid))
}
