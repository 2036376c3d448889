//! A stream of server-sent events, read block by block.

use reqwest::{RequestBuilder, Response};
use tokio::time::timeout;

use super::PATIENCE;

/// An open stream.
pub struct Blocks {
    pub response: Response,
    text: String,
}

impl Blocks {
    /// Opens a stream, after the event with this id if there is one, as an `EventSource` does.
    pub async fn open(mut request: RequestBuilder, last_id: Option<&str>) -> Self {
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-store");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next lines up to a blank one; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("in time").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
