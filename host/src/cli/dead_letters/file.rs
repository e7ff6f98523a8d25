//! `tidemill deadletter retry --file`: the letters of a file on their way to a host.
//!
//! A thread reads the lines that the file has at the beginning: the pipelines that take the letters may write the file
//! meanwhile. They are sent in pieces, one after the other, at the pace that was asked for; what a piece waits for is
//! told while it waits.

mod lines;

use super::{LetterRetry, LettersMeant, RETRIED};
use crate::admin::ApiRequest;
use crate::cli::pipelines::{PIPELINE, note};
use crate::cli::readable::text;
use crate::cli::running_host::{HostRefusal, RefusalCause};
use crate::cli::{Exit, answer, block_on, complain, is_terminal, tell};
use crate::dead_letters::{Letter, LetterFilter};
use indicatif::{ProgressBar, ProgressStyle};
use lines::{FileLine, lines};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Letters that are sent at once, and their bytes; one that is larger goes alone.
const PIECE_LETTERS: usize = 100;
const PIECE_BYTES: usize = 512 << 10;
/// A host is given as much at once as it may retry in this time.
const PIECE_SECONDS: f64 = 5.0;
/// Longest that a host may take for one piece.
const PIECE_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a piece may take until it is told what it waits for, and how often that may change.
const UNTOLD: Duration = Duration::from_secs(2);
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How long a host may take to say how a pipeline does.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The status of the answer to a body that is larger than a host takes.
const TOO_LARGE: u16 = 413;

/// Retries what a file has, line by line.
pub(super) fn retry(retry: &LetterRetry, path: &Path) -> Exit {
    block_on(|shutdown| async move {
        let mut sent = SentLetters::new(retry, path);
        let done = tokio::select! {
            done = sent.send_all() => done,
            () = shutdown.requested() => Ok(()),
        };
        sent.progress.end();
        if let Err(why) = &done {
            complain(why);
        }
        let exit = match (shutdown.is_requested(), done.is_ok() && sent.refused.is_empty()) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Success,
            (false, false) => Exit::Failure,
        };
        let SentLetters { retried, refused, .. } = sent;
        let told = if retry.host.json {
            let told =
                json!({ "dry_run": retry.dry_run, "retried": retried, "waiting": 0, "refused": refused });
            format!("{told:#}\n")
        } else {
            retry.told(retried)
        };
        answer(&told, exit)
    })
}

/// The letters of a file on their way to a host.
struct SentLetters<'r> {
    retry: &'r LetterRetry,
    path: &'r Path,
    meant: LetterFilter,
    /// What is sent next.
    piece: Piece,
    /// Most letters of a piece.
    most: usize,
    /// When the next letter of a pipeline may be sent, where there is a pace.
    due: BTreeMap<Arc<str>, Instant>,
    retried: u64,
    /// What is no letter, or was refused.
    refused: Vec<Value>,
    progress: ToldProgress,
}

/// Letters that are sent at once.
#[derive(Default)]
struct Piece {
    /// Their numbers, from 1, and the lines as they stand.
    lines: Vec<(usize, String)>,
    bytes: usize,
    pipelines: BTreeSet<Arc<str>>,
}

impl<'r> SentLetters<'r> {
    fn new(retry: &'r LetterRetry, path: &'r Path) -> Self {
        let LettersMeant { pipeline, reason } = retry.meant.clone();
        let most = retry
            .rate
            .map_or(PIECE_LETTERS, |rate| ((rate * PIECE_SECONDS) as usize).clamp(1, PIECE_LETTERS));
        Self {
            retry,
            path,
            meant: LetterFilter { pipeline, reason },
            piece: Piece::default(),
            most,
            due: BTreeMap::new(),
            retried: 0,
            refused: Vec::new(),
            progress: ToldProgress::new(),
        }
    }

    /// # Errors
    /// The file cannot be read on, there is no pipeline of the name that was asked for, or the host does not take a
    /// piece.
    async fn send_all(&mut self) -> Result<(), String> {
        if let Some(pipeline) = &self.meant.pipeline {
            self.look(pipeline).await.map_err(|why| why.to_string())?;
        }
        let (sender, mut waiting) = mpsc::channel(1);
        let path = self.path.to_owned();
        let reading =
            tokio::task::spawn_blocking(move || lines(&path, |line| sender.blocking_send(line).is_ok()));
        while let Some(FileLine { number, text }) = waiting.recv().await {
            match text.map_err(str::to_owned).and_then(|text| Ok((Letter::parse(&text)?, text))) {
                Ok((letter, _)) if !self.meant.has(&letter) => {}
                Ok((letter, text)) => {
                    let Piece { lines, bytes, .. } = &self.piece;
                    if lines.len() >= self.most || (bytes + text.len() > PIECE_BYTES && !lines.is_empty()) {
                        self.send().await?;
                    }
                    self.piece.bytes += text.len();
                    self.piece.lines.push((number, text));
                    self.piece.pipelines.insert(letter.pipeline);
                }
                Err(why) => self.refuse(number, &format!("no dead letter: {why}")),
            }
        }
        self.send().await?;
        let read = reading.await.map_err(|error| error.to_string())?;
        let is_whole = read.map_err(|error| format!("failed to read {}: {error}", self.path.display()))?;
        if !is_whole {
            let path = self.path.display();
            self.progress.note(&format!(
                "{path} ends before its packed text does: it is written still, or was cut off"
            ));
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), String> {
        let piece = std::mem::take(&mut self.piece);
        let Some((first, _)) = piece.lines.first() else { return Ok(()) };
        if let Some(due) = piece.pipelines.iter().filter_map(|pipeline| self.due.get(pipeline)).max() {
            sleep_until(*due).await;
        }
        let answer = match self.answered(&piece).await {
            Ok(answer) => answer,
            Err(HostRefusal { cause: RefusalCause::Said(TOO_LARGE, _), text, .. })
                if piece.lines.len() == 1 =>
            {
                self.refuse(*first, &format!("the letter is larger than the host takes: {text}"));
                return Ok(());
            }
            Err(why) => return Err(format!("{}:{first}: from here on: {why}", self.path.display())),
        };
        if let Some(rate) = self.retry.rate {
            // The last letter has entered just now, or before.
            let next = Instant::now() + Duration::from_secs_f64(1.0 / rate);
            self.due.extend(piece.pipelines.iter().map(|pipeline| (pipeline.clone(), next)));
        }
        self.retried += answer["retried"].as_u64().unwrap_or(0);
        for each in answer["refused"].as_array().into_iter().flatten() {
            let index = each["index"].as_u64().and_then(|index| piece.lines.get(index as usize));
            if let Some((number, _)) = index {
                self.refuse(*number, &text(&each["error"]));
            }
        }
        self.progress.so_far(&self.retry.told(self.retried));
        Ok(())
    }

    /// What a host answers to a piece. While it does not, it is told why.
    async fn answered(&self, piece: &Piece) -> Result<Value, HostRefusal> {
        let letters: Vec<_> = piece.lines.iter().map(|(_, line)| line.as_str()).collect();
        let rest = self.retry.body().to_string();
        let body = format!("{{\"letters\":[{}],{}", letters.join(","), &rest[1..]);
        let request = ApiRequest::new("POST", "/api/v1/deadletters/retry").json(body).within(PIECE_TIMEOUT);
        let mut asked = pin!(self.retry.host.ask(request, RETRIED));
        let paced = self.retry.rate.map_or(0.0, |rate| (letters.len() - 1) as f64 / rate);
        let (mut patience, mut told) = (UNTOLD + Duration::from_secs_f64(paced), String::new());
        loop {
            tokio::select! {
                answered = &mut asked => return answered,
                () = sleep(patience) => {}
            }
            let looked = async {
                let mut waits = Vec::new();
                for pipeline in &piece.pipelines {
                    let why = self.look(pipeline).await.map(|pipeline| note(&pipeline)).unwrap_or_default();
                    let why = if why.is_empty() { why } else { format!(": {why}") };
                    waits.push(format!("pipeline \"{pipeline}\" to take more messages{why}"));
                }
                waits.join("; ")
            };
            let waits = tokio::select! {
                answered = &mut asked => return answered,
                waits = looked => waits,
            };
            if waits != told {
                let (first, last) = (piece.lines.first(), piece.lines.last());
                let [first, last] = [first, last].map(|line| line.map_or(0, |(number, _)| *number));
                self.progress.note(&format!("lines {first} to {last} wait for {waits}"));
                told = waits;
            }
            patience = TOLD_EVERY;
        }
    }

    /// How a pipeline does.
    async fn look(&self, pipeline: &str) -> Result<Value, HostRefusal> {
        let path = format!("/api/v1/pipelines/{}", utf8_percent_encode(pipeline, NON_ALPHANUMERIC));
        self.retry.host.ask(ApiRequest::new("GET", path).within(LOOK_TIMEOUT), PIPELINE).await
    }

    fn refuse(&mut self, line: usize, why: &str) {
        if !self.retry.host.json {
            self.progress.tell(&format!("{}:{line}: {why}", self.path.display()));
        }
        self.refused.push(json!({ "line": line, "error": why }));
    }
}

/// What is told on standard error meanwhile: a line that changes on a terminal, and now and then a line elsewhere.
struct ToldProgress {
    bar: Option<ProgressBar>,
    next: Instant,
}

impl ToldProgress {
    fn new() -> Self {
        let bar = is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is right");
            ProgressBar::no_length().with_style(style)
        });
        Self { bar, next: Instant::now() + TOLD_EVERY }
    }

    /// So much is done.
    fn so_far(&mut self, told: &str) {
        let told = format!("{} so far", told.trim_end());
        if let Some(bar) = &self.bar {
            bar.set_message(told);
            bar.tick();
        } else if self.next <= Instant::now() {
            self.note(&told);
            self.next = Instant::now() + TOLD_EVERY;
        }
    }

    fn note(&self, text: &str) {
        self.tell(&format!("note: {text}"));
    }

    fn tell(&self, line: &str) {
        let line = || tell(format!("{line}\n"));
        match &self.bar {
            Some(bar) => bar.suspend(line),
            None => line(),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
