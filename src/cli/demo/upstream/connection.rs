//! One TCP connection: requests in, answers or faults out.

use std::{io, sync::Arc};

use tokio::net::TcpStream;

use super::{
    Fault, Route, State, faults,
    http::{Pace, Request, Wire},
    routes,
};

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, state: Arc<State>) {
    // Small answers must not wait for more to come.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // An error means that the caller is gone; there is nobody left to tell.
    drop(converse(Wire::new(stream), &state).await);
}

async fn converse(mut wire: Wire, state: &State) -> io::Result<()> {
    while let Some(request) = wire.read_request().await? {
        state.record(&request);
        let route = match request.method.as_str() {
            "GET" => Route::of(request.path()),
            _ => None,
        };
        let fault = route.and_then(|route| state.take_fault(route));
        match &fault {
            Some(Fault::Hang) => {
                wire.closed().await;
                return Ok(());
            }
            Some(Fault::Reset) => return wire.reset(),
            _ => {}
        }
        if route == Some(Route::Stream) {
            return stream(&mut wire, state, &request, fault.as_ref()).await;
        }
        let mut answer = routes::answer(state, &request, route);
        if let (Some(route), Some(fault)) = (route, &fault) {
            answer = faults::distort(fault, answer, state, &request, route);
        }
        let answer = routes::finish(answer, state, &request, fault.as_ref());
        let keeps_alive = request.keeps_alive();
        let pace = pace(fault.as_ref()).await;
        wire.write(&answer, keeps_alive, pace).await?;
        if !keeps_alive || matches!(pace, Pace::Half) {
            return Ok(());
        }
    }
    Ok(())
}

/// How fast a fault lets the answer go; waits out a delay.
async fn pace(fault: Option<&Fault>) -> Pace {
    match fault {
        Some(Fault::Delay(delay)) => tokio::time::sleep(*delay).await,
        Some(Fault::HalfSent) => return Pace::Half,
        Some(Fault::SlowBody {
            bytes_per_tick,
            tick,
        }) => {
            return Pace::Slow {
                bytes: *bytes_per_tick,
                tick: *tick,
            };
        }
        _ => {}
    }
    Pace::Whole
}

/// Serves a stream, or refuses it; the connection is over afterwards.
///
/// Faults that change the body of an answer mean nothing here and are ignored.
async fn stream(
    wire: &mut Wire,
    state: &State,
    request: &Request,
    fault: Option<&Fault>,
) -> io::Result<()> {
    let client_key = request.path().trim_start_matches("/sub/").to_owned();
    let pace = pace(fault).await;
    let refusal = match fault {
        Some(
            fault @ (Fault::Status(_)
            | Fault::RetryAfter { .. }
            | Fault::Unrecoverable
            | Fault::Redirect(_)
            | Fault::Body { .. }
            | Fault::Html
            | Fault::EmptyObject
            | Fault::EmptyArray),
        ) => {
            let right = routes::answer(state, request, Some(Route::Stream));
            let answer = faults::distort(fault, right, state, request, Route::Stream);
            Some(answer)
        }
        _ => routes::refuse_stream(state, &client_key),
    };
    match refusal {
        Some(answer) => wire.write(&answer, false, pace).await,
        None => state.streams.serve(wire, request, &client_key).await,
    }
}
