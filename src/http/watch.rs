//! Notices where each request begins and its reply ends, for the connection that they belong to.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, MessageBody};
use actix_http::error::{DispatchError, PayloadError};
use actix_http::{Payload, Protocol, Request, Response};
use actix_service::{Service, ServiceFactory};
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::Bytes;
use futures_util::Stream;
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;

use super::PIECE_BYTES;
use super::connection::{Connection, SharedBody};
use super::stream::GuardedStream;
use super::worker::Worker;

/// Serves sockets: each in a connection of its own, which ends when the worker says so.
pub(super) struct GuardedFactory<H> {
    http: H,
    worker: Rc<Worker>,
}

impl<H> GuardedFactory<H> {
    pub(super) fn new(http: H, worker: Rc<Worker>) -> Self {
        Self { http, worker }
    }
}

type Accepted = (GuardedStream, Protocol, Option<SocketAddr>);

impl<H> ServiceFactory<TcpStream> for GuardedFactory<H>
where
    H: ServiceFactory<Accepted, Config = (), Response = (), Error = DispatchError, InitError = ()>,
    H::Future: 'static,
    H::Service: 'static,
    <H::Service as Service<Accepted>>::Future: 'static,
{
    type Response = ();
    type Error = DispatchError;
    type Config = ();
    type Service = Guarded<H::Service>;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Service, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let (http, worker) = (self.http.new_service(()), self.worker.clone());
        Box::pin(async move { Ok(Guarded { http: http.await?, worker }) })
    }
}

/// See `GuardedFactory`.
pub(super) struct Guarded<H> {
    http: H,
    worker: Rc<Worker>,
}

impl<H> Service<TcpStream> for Guarded<H>
where
    H: Service<Accepted, Response = (), Error = DispatchError>,
    H::Future: 'static,
{
    type Response = ();
    type Error = DispatchError;
    type Future = LocalBoxFuture<'static, Result<(), DispatchError>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), DispatchError>> {
        ready!(self.worker.poll_arrival(cx));
        self.http.poll_ready(cx)
    }

    fn call(&self, io: TcpStream) -> Self::Future {
        let peer = io.peer_addr().ok();
        let entered = match self.worker.enter(peer.map(|peer| peer.ip())) {
            Ok(entered) => entered,
            Err(refusal) => {
                refusal.answer(&io);
                return Box::pin(async { Ok(()) });
            }
        };
        // A reply of several packets must not wait, with the last of them, until the client has acknowledged those before.
        let _ = io.set_nodelay(true);
        let stream = GuardedStream::new(io, entered.connection().clone());
        let mut serving = Box::pin(self.http.call((stream, Protocol::Http1, peer)));
        Box::pin(poll_fn(move |cx| {
            entered.connection().begin_turn(cx);
            if !entered.has_turn() {
                return Poll::Pending;
            }
            match serving.as_mut().poll(cx) {
                // Dropped with all that it holds, which closes it.
                Poll::Pending if entered.connection().is_cut() => Poll::Ready(Ok(())),
                other => other,
            }
        }))
    }
}

/// The application, with each call noticed.
pub(super) struct WatchedFactory<A, B> {
    app: A,
    body: PhantomData<fn() -> B>,
}

impl<A, B> WatchedFactory<A, B> {
    pub(super) fn new(app: A) -> Self {
        Self { app, body: PhantomData }
    }
}

impl<A, B> ServiceFactory<Request> for WatchedFactory<A, B>
where
    A: ServiceFactory<Request, Config = ()>,
    A::Response: Into<Response<B>>,
    A::Future: 'static,
    B: MessageBody,
{
    type Response = Response<Watched<B>>;
    type Error = A::Error;
    type Config = ();
    type Service = WatchedService<A::Service, B>;
    type InitError = A::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, A::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let app = self.app.new_service(());
        Box::pin(async move { Ok(WatchedService { app: app.await?, body: PhantomData }) })
    }
}

/// See `WatchedFactory`.
pub(super) struct WatchedService<A, B> {
    app: A,
    body: PhantomData<fn() -> B>,
}

impl<A, B> Service<Request> for WatchedService<A, B>
where
    A: Service<Request>,
    A::Response: Into<Response<B>>,
    B: MessageBody,
{
    type Response = Response<Watched<B>>;
    type Error = A::Error;
    type Future = WatchedCall<A::Future, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), A::Error>> {
        self.app.poll_ready(cx)
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let call = request.conn_data::<Rc<Connection>>().cloned().map(|connection| {
            let body = share_body(&mut request, &connection);
            connection.called(body);
            Call(connection)
        });
        WatchedCall { reply: self.app.call(request), call, body: PhantomData }
    }
}

/// The framework and the handler each hold an end of a body. A third part holds it while the reply is sent.
fn share_body(request: &mut Request, connection: &Rc<Connection>) -> Option<(SharedBody, Option<usize>)> {
    let Payload::H1 { payload } = request.take_payload() else { return None };
    let body = Rc::new(RefCell::new(payload));
    let stream = HandlersBody { body: body.clone(), connection: connection.clone() };
    *request.payload() = Payload::Stream { payload: Box::pin(stream) };
    let length = request.head().headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Some((body, length))
}

/// The body as the handler reads it.
struct HandlersBody {
    body: SharedBody,
    connection: Rc<Connection>,
}

impl Stream for HandlersBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut *self.body.borrow_mut()).poll_next(cx));
        if next.is_none() {
            self.connection.body_is_read();
        }
        Poll::Ready(next)
    }
}

/// A request that is being answered.
struct Call(Rc<Connection>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.finished();
    }
}

pin_project! {
    /// A call of the application.
    pub(super) struct WatchedCall<F, B> {
        #[pin]
        reply: F,
        call: Option<Call>,
        body: PhantomData<fn() -> B>,
    }
}

impl<F, R, E, B> Future for WatchedCall<F, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    B: MessageBody,
{
    type Output = Result<Response<Watched<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let reply = ready!(this.reply.poll(cx))?;
        let call = this.call.take();
        Poll::Ready(Ok(reply.into().map_body(|_, body| Watched { body, rest: Bytes::new(), call })))
    }
}

pin_project! {
    /// The body of a reply, in pieces; with its end the request is over.
    pub(super) struct Watched<B> {
        #[pin]
        body: B,
        rest: Bytes,
        call: Option<Call>,
    }
}

impl<B: MessageBody> MessageBody for Watched<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.project();
        if this.rest.is_empty() {
            match ready!(this.body.poll_next(cx)) {
                Some(Ok(bytes)) if bytes.len() > PIECE_BYTES => *this.rest = bytes,
                other => return Poll::Ready(other),
            }
        }
        let length = this.rest.len().min(PIECE_BYTES);
        let piece = this.rest.split_to(length);
        if let Some(Call(connection)) = this.call {
            connection.owed.set(this.rest.len());
        }
        Poll::Ready(Some(Ok(piece)))
    }
}
