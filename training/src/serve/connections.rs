//! Connections: how many, for how long, and their end.
//!
//! A connection holds a socket and [`BUFFER`] at most; those beyond the limit wait in the kernel's queue
//! until another is closed. One that sends no whole header in time is closed, an idle one too; so is one
//! that doesn't take its answer. The time for a body is [`super::service`]'s.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use super::service::Service;

/// Of a header, or of a body on its way, in bytes.
const BUFFER: usize = 64 << 10;
/// For requests that have begun when the service is to stop: SageMaker kills a container 30 s after
/// it has told it to.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// When no connection can be taken, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The signals that end the service.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From now on the signals don't end the process by themselves.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn come(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves connections until it is told to stop and the requests that have begun are answered.
pub(super) async fn serve(
    listener: TcpListener,
    service: &Arc<Service>,
    connections: usize,
    timeout: Duration,
    stop: Stop,
) {
    let free = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(BUFFER);
    let mut stop = pin!(stop.come());
    loop {
        let (stream, place) = tokio::select! {
            biased;
            () = &mut stop => break,
            next = next(&listener, &free) => next,
        };
        // Answers are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(timeout));
        let service = Arc::clone(service);
        let answer = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), answer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await.is_err() {
        eprintln!("requests are unanswered after {} s: stopping", STOP_TIMEOUT.as_secs());
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // Never closed, so there is always a permit in the end.
    let place = Arc::clone(free).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
