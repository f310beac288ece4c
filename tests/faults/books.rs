//! What the database holds of a product, read past the program.

use std::time::Duration;

use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, QueryableByName, SqliteConnection, sql_query};
use diesel_async::{AsyncConnection, AsyncMysqlConnection};
use seckill::config::{Backend, Config};
use secrecy::ExposeSecret;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Books {
    pub stock: i64,
    pub sold: i64,
    /// Units of dead orders that the gate has not got back.
    pub owed: i64,
    /// Live orders and their buyers.
    pub live: Vec<(Uuid, i64)>,
}

#[derive(QueryableByName)]
struct Totals {
    #[diesel(sql_type = BigInt)]
    stock: i64,
    #[diesel(sql_type = BigInt)]
    sold: i64,
    #[diesel(sql_type = BigInt)]
    owed: i64,
}

#[derive(QueryableByName)]
struct LiveOrder {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    user_id: i64,
}

impl Books {
    pub async fn read(config: &Config, product: i64) -> Result<Self, String> {
        let totals = sql_query(format!(
            "SELECT stock, sold, (SELECT COUNT(*) FROM orders WHERE product_id = {product} AND release_due IS NOT NULL) \
             AS owed FROM products WHERE id = {product}"
        ));
        let live = sql_query(format!(
            "SELECT HEX(id) AS id, user_id FROM orders WHERE product_id = {product} AND live_user IS NOT NULL"
        ));
        let (totals, live): (Totals, Vec<LiveOrder>) = match config.backend {
            Backend::Embedded => {
                use diesel::RunQueryDsl;
                let file = config.embedded.data_dir.join("seckill.db");
                let mut conn = SqliteConnection::establish(file.to_str().unwrap()).map_err(|e| e.to_string())?;
                sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn).map_err(|e| e.to_string())?;
                (
                    totals.get_result(&mut conn).map_err(|e| e.to_string())?,
                    live.load(&mut conn).map_err(|e| e.to_string())?,
                )
            }
            Backend::Distributed => {
                use diesel_async::RunQueryDsl;
                let reading = async {
                    let mut conn = AsyncMysqlConnection::establish(config.mysql.dsn.expose_secret())
                        .await
                        .map_err(|e| e.to_string())?;
                    let totals = totals.get_result(&mut conn).await.map_err(|e| e.to_string())?;
                    Ok::<_, String>((totals, live.load(&mut conn).await.map_err(|e| e.to_string())?))
                };
                tokio::time::timeout(PATIENCE, reading).await.map_err(|e| e.to_string())??
            }
        };
        let live = live.iter().map(|order| (Uuid::parse_str(&order.id).unwrap(), order.user_id)).collect();
        Ok(Self { stock: totals.stock, sold: totals.sold, owed: totals.owed, live })
    }
}
