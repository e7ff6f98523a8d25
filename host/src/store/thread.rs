//! The thread that waits for the disk, and the handles through which it is asked.

use super::error::StoreError;
use super::folder::{Listed, StoreFolder};
use crate::generation::Generation;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

/// Requests that may wait: each pipeline has one generation on its way at most.
const REQUESTS: usize = 16;

type StoreAnswer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked.
#[derive(Debug)]
enum Request {
    Load(Arc<str>, StoreAnswer<Generation>),
    Write(Arc<str>, Generation, StoreAnswer<()>),
    Read(Arc<str>, StoreAnswer<Option<Generation>>),
    List(StoreAnswer<Vec<Listed>>),
    Clear(Arc<str>, Option<String>, StoreAnswer<bool>),
}

/// A way to ask the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    requests: mpsc::Sender<Request>,
}

/// The thread of the store. It ends once every [`Store`] and [`GenerationWriter`] is gone.
#[derive(Debug)]
pub struct StoreThread {
    thread: JoinHandle<()>,
}

/// Writes the generations of one pipeline, one after the other.
#[derive(Debug)]
pub struct GenerationWriter {
    pipeline: Arc<str>,
    requests: PollSender<Request>,
    /// The generation that waits for a place.
    next: Option<Generation>,
    answer: Option<oneshot::Receiver<Result<(), StoreError>>>,
}

impl Store {
    /// Starts the thread of the store over a folder.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(folder: StoreFolder) -> io::Result<(Self, StoreThread)> {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let thread =
            thread::Builder::new().name("tidemill-state".into()).spawn(move || serve(folder, receiver))?;
        Ok((Self { requests }, StoreThread { thread }))
    }

    /// The newest generation of a pipeline, an empty one if there is none; its file is open from then on.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn load(&self, pipeline: &str) -> Result<Generation, StoreError> {
        self.ask(|answer| Request::Load(pipeline.into(), answer)).await
    }

    /// The newest generation of a pipeline; `None` if nothing is kept of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(&self, pipeline: &str) -> Result<Option<Generation>, StoreError> {
        self.ask(|answer| Request::Read(pipeline.into(), answer)).await
    }

    /// What is kept of each pipeline, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn list(&self) -> Result<Vec<Listed>, StoreError> {
        self.ask(Request::List).await
    }

    /// Forgets what is kept of a pipeline, or of one of its transforms: whoever asks for it after this finds it
    /// gone. The future says whether there was anything, or why it cannot be removed.
    ///
    /// # Errors
    /// So much waits for the disk that nothing can be asked of it now.
    pub fn clear(
        &self,
        pipeline: &str,
        transform: Option<&str>,
    ) -> Result<impl Future<Output = Result<bool, StoreError>> + Send + use<>, StoreError> {
        let (sender, answer) = oneshot::channel();
        let request = Request::Clear(pipeline.into(), transform.map(str::to_owned), sender);
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        Ok(async { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }

    /// What writes the generations of a pipeline that was loaded.
    pub fn writer(&self, pipeline: &str) -> GenerationWriter {
        GenerationWriter {
            pipeline: pipeline.into(),
            requests: PollSender::new(self.requests.clone()),
            next: None,
            answer: None,
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(StoreAnswer<T>) -> Request) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl StoreThread {
    /// Waits until everything that was asked for is done, once nobody can ask any more.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps state has panicked");
        }
    }
}

impl GenerationWriter {
    /// Whether a generation is on its way to the disk.
    pub fn is_writing(&self) -> bool {
        self.next.is_some() || self.answer.is_some()
    }

    /// Sends a generation to the disk, when none is on its way.
    pub fn write(&mut self, changes: Generation) {
        debug_assert!(!self.is_writing(), "one after the other");
        self.next = Some(changes);
    }

    /// Ready once the generation is on the disk, or is not: then the one before is the newest.
    pub fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        if self.next.is_some() {
            let reserved = ready!(self.requests.poll_reserve(cx));
            let (Ok(()), Some(changes)) = (reserved, self.next.take()) else {
                self.next = None;
                return Poll::Ready(Err(StoreError::Closed));
            };
            let (sender, answer) = oneshot::channel();
            if self.requests.send_item(Request::Write(self.pipeline.clone(), changes, sender)).is_err() {
                return Poll::Ready(Err(StoreError::Closed));
            }
            self.answer = Some(answer);
        }
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        let written = ready!(std::pin::Pin::new(answer).poll(cx));
        self.answer = None;
        Poll::Ready(written.unwrap_or(Err(StoreError::Closed)))
    }
}

/// Does what is asked, one thing after the other. Who asked may have gone: then nobody wants the answer.
fn serve(mut folder: StoreFolder, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.blocking_recv() {
        match request {
            Request::Load(pipeline, answer) => drop(answer.send(folder.load(&pipeline))),
            Request::Write(pipeline, changes, answer) => {
                drop(answer.send(folder.write(&pipeline, &changes)));
            }
            Request::Read(pipeline, answer) => drop(answer.send(folder.read(&pipeline))),
            Request::List(answer) => drop(answer.send(folder.list())),
            Request::Clear(pipeline, transform, answer) => {
                drop(answer.send(folder.clear(&pipeline, transform.as_deref())));
            }
        }
    }
}
