//! What Redis is asked.

use deadpool_redis::redis;
use seckill::config;
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::app::TestApp;

/// The commands that Redis was sent in this test's database, each with the address of its connection.
pub struct Monitor(tokio::task::JoinHandle<Vec<String>>);

impl Monitor {
    pub async fn start(settings: &config::Redis) -> Self {
        let connection = TcpStream::connect(&settings.addr).await.unwrap();
        let (reader, mut writer) = connection.into_split();
        let mut lines = BufReader::new(reader).lines();
        let password = settings.password.expose_secret();
        if !password.is_empty() {
            writer.write_all(format!("AUTH {password}\r\n").as_bytes()).await.unwrap();
            lines.next_line().await.unwrap();
        }
        writer.write_all(b"MONITOR\r\n").await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        let of_this_test = format!(" [{} ", settings.db);
        Self(tokio::spawn(async move {
            // Kept open until the end.
            let _writer = writer;
            let mut seen = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("end of this look") {
                    break;
                }
                if line.contains(&of_this_test) {
                    seen.push(line);
                }
            }
            seen
        }))
    }

    pub async fn end(self, app: &TestApp) -> Vec<String> {
        redis::cmd("ECHO").arg("end of this look").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        self.0.await.unwrap()
    }
}
