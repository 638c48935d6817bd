//! `gaggle image`: the container images of the cluster's desktops, without a registry.

use super::Place;
use super::connection::{Connection, JSON};
use super::output::{OutputFormat, write_object};
use super::table::{Columns, text};
use anyhow::{Context, anyhow, bail, ensure};
use axum::body::Body;
use axum::http::{Request, header};
use clap::Subcommand;
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// Load and list container images
///
/// An image that one desktop has is taken from there by every other that needs it, so that no registry is
/// needed: build, load, run.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Put the images of a `docker save` file into the cluster
    Load {
        /// The file, or - for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// List the images that the desktops have
    Ls {
        /// json: everything, for scripts
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<ListFormat>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ListFormat {
    Json,
}

const EXAMPLES: &str = "\
Examples:
  docker save analysis:1 | gaggle image load -
  gaggle image load analysis.tar
  gaggle image ls";

const IMAGES: &str = "/gaggle/v1/images";
/// The bytes of one read from the file; each is one piece of the upload.
const PIECE_BYTES: usize = 256 << 10;
const REDRAW: Duration = Duration::from_millis(200);

pub async fn run(place: &Place, args: ImageArgs) -> anyhow::Result<()> {
    match args.command {
        ImageCommand::Load { file } => load(place, file).await,
        ImageCommand::Ls { output } => list(place, output).await,
    }
}

async fn load(place: &Place, file: PathBuf) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let (reader, size) = open(&file).await?;
    let bar = progress_bar(size);
    let sent = bar.clone();
    let pieces = ReaderStream::with_capacity(reader, PIECE_BYTES)
        .inspect_ok(move |piece| sent.inc(piece.len() as u64));
    let request = Request::post(IMAGES)
        .header(header::CONTENT_TYPE, "application/x-tar")
        .header(header::ACCEPT, JSON)
        .body(Body::from_stream(pieces))?;
    let response = connection.send(request).await;
    bar.finish_and_clear();
    // The daemon has seen bytes and no name.
    let response = response.map_err(|error| anyhow!("{}: {error:#}", file.display()))?;
    const MAX_REPORT_BYTES: usize = 1 << 20;
    let report = axum::body::to_bytes(response.into_body(), MAX_REPORT_BYTES).await?;
    let report: Value = serde_json::from_slice(&report).context("the daemon's answer is no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("{}: {error}", file.display());
    }
    let loaded: Vec<&str> =
        report["loaded"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(!loaded.is_empty(), "{} contains no image: make it with `docker save NAME`", file.display());
    for name in loaded {
        writeln!(std::io::stdout(), "loaded {name}")?;
    }
    Ok(())
}

type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// The bytes of the file, and how many there are, where that is known.
async fn open(file: &PathBuf) -> anyhow::Result<(Reader, Option<u64>)> {
    if file.as_os_str() == "-" {
        let input = std::io::stdin();
        ensure!(
            !input.is_terminal(),
            "standard input is the terminal: docker save NAME | gaggle image load -"
        );
        let input = std::fs::File::from(input.as_fd().try_clone_to_owned()?);
        return Ok((Box::pin(tokio::fs::File::from_std(input)), None));
    }
    let named = || format!("the image file {}", file.display());
    let opened = tokio::fs::File::open(file).await.with_context(named)?;
    let about = opened.metadata().await.with_context(named)?;
    ensure!(!about.is_dir(), "{} is a directory: give a file of `docker save`", file.display());
    Ok((Box::pin(opened), about.is_file().then_some(about.len())))
}

/// Drawn on a terminal only; hidden in scripts.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    let template = match size {
        Some(_) => "loading {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "loading {spinner} {bytes} {bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(REDRAW);
    bar
}

async fn list(place: &Place, output: Option<ListFormat>) -> anyhow::Result<()> {
    let answer = Connection::open(place).await?.get(IMAGES, JSON).await?;
    let mut out = std::io::stdout().lock();
    if let Some(ListFormat::Json) = output {
        write_object(&mut out, &answer, &OutputFormat::Json)?;
        return Ok(());
    }
    let mut rows = vec![["IMAGE", "NODES"].map(str::to_owned).to_vec()];
    let listed = &answer["images"];
    rows.extend(listed.as_array().into_iter().flatten().map(image_row));
    Columns::default().print(&mut out, &rows)?;
    Ok(())
}

/// One image as the daemon lists it: `{"name","nodes":[NAME]}`.
fn image_row(image: &Value) -> Vec<String> {
    let nodes: Vec<String> = image["nodes"].as_array().into_iter().flatten().map(text).collect();
    vec![text(&image["name"]), nodes.join(",")]
}
