//! Finds the ids of a merchant's orders, the newest first, in a bounded time: whatever is asked for, and however many orders there are.
//!
//! A lookup knows the orders of a product, of a status and of a buyer; what it does not know yet lies in gaps, which are looked through
//! themselves. A gap can be a whole sale. So a step may end early, and says down to which id it is complete: the page is then shorter, and goes on
//! there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::filter::OrderFilter;
use crate::db::{DbConn, DbResult, Gap, OrderPlace, lists_of_product, lists_of_status};
use crate::model::{OrderId, ProductId, UserId, Username};

/// Gaps that one step looks at, and those of several orders among them.
const MAX_GAPS: usize = 2_000;
const MAX_WIDE_GAPS: usize = 20;
/// Orders of a gap that are read at a time.
const CHUNK: i64 = 1_000;
/// Orders that are looked at in one step, if only some of them are meant: of a user those of a status, for example.
const CANDIDATES: usize = 200;
/// When a step ends although there is more to look through.
const PATIENCE: Duration = Duration::from_millis(12);

/// What a step has found.
#[derive(Debug, Default)]
pub(super) struct Explored {
    /// Ids, the newest first. What they are, their rows say.
    pub(super) ids: Vec<Uuid>,
    /// All orders from this one on were looked at, and no older one; `None`: all.
    pub(super) floor: Option<Uuid>,
}

/// Ids that are found, and down to where nothing is missing.
struct Finding {
    ids: BTreeSet<Uuid>,
    floor: Uuid,
    wanted: usize,
}

impl Finding {
    fn new(wanted: usize) -> Self {
        Self { ids: BTreeSet::new(), floor: Uuid::nil(), wanted }
    }

    /// Nothing below it was looked for.
    fn ends_at(&mut self, floor: Uuid) {
        self.floor = self.floor.max(floor);
    }

    /// A source whose newest ids are these; there may be more if they are as many as were asked for.
    fn add(&mut self, newest: Vec<Uuid>, asked: usize) {
        if newest.len() >= asked
            && let Some(oldest) = newest.last()
        {
            self.ends_at(*oldest);
        }
        self.ids.extend(newest);
    }

    fn done(mut self) -> Explored {
        let enough = self.ids.iter().rev().nth(self.wanted.saturating_sub(1)).copied();
        if let Some(enough) = enough {
            self.ends_at(enough);
        }
        let floor = self.floor;
        let ids = self.ids.into_iter().rev().take_while(|id| *id >= floor).collect();
        Explored { ids, floor: (!floor.is_nil()).then_some(floor) }
    }
}

/// Looks for `wanted` orders before `before`. `issuer`: of the shop's own directory, whose users are searched by their subjects.
pub(super) async fn explore(
    conn: &mut DbConn,
    filter: &OrderFilter,
    issuer: Option<&str>,
    before: Uuid,
    wanted: usize,
) -> DbResult<Explored> {
    let OrderFilter { product, status, user, refund_due, search } = filter;
    let is_of_users = search.is_some() || user.is_some();
    // Nothing finds the orders to which several of these apply: they are looked for among those to which one does.
    let (is_due, is_of_rows) = (refund_due.is_some(), product.is_some() || status.is_some());
    let is_among = if is_of_users { status.is_some() || is_due } else { is_due && is_of_rows };
    let mut finding = Finding::new(if is_among { wanted.max(CANDIDATES) } else { wanted });
    if let Some(text) = search {
        search_for(conn, &mut finding, (text, issuer), *product, before).await?;
    } else if let Some(user) = user {
        of_user(conn, &mut finding, *user, *product, before).await?;
    } else if *refund_due == Some(true) {
        let asked = finding.wanted;
        let due = conn.orders_with_refund_due(before, asked as i64).await?;
        finding.add(due, asked);
    } else {
        match (product, status) {
            (None, None) => of_all(conn, &mut finding, before).await?,
            (product, Some(status)) => {
                let lists = lists_of_status(*product, *status);
                let is_meant = |place: &OrderPlace| {
                    place.status == Some(*status) && product.is_none_or(|product| product.get() == place.product)
                };
                look_up(conn, &mut finding, &lists, is_meant, before).await?;
            }
            (Some(product), None) => {
                let is_meant = |place: &OrderPlace| place.product == product.get();
                look_up(conn, &mut finding, &lists_of_product(*product), is_meant, before).await?;
            }
        }
    }
    Ok(finding.done())
}

fn below(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

fn above(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add(1))
}

async fn of_all(conn: &mut DbConn, finding: &mut Finding, before: Uuid) -> DbResult<()> {
    let asked = finding.wanted;
    let (places, _) = conn.order_places(Uuid::nil(), below(before), asked as i64).await?;
    finding.add(places.iter().map(|place| place.id).collect(), asked);
    Ok(())
}

async fn of_user(
    conn: &mut DbConn,
    finding: &mut Finding,
    user: UserId,
    product: Option<ProductId>,
    before: Uuid,
) -> DbResult<()> {
    let asked = finding.wanted;
    let found = conn.orders_of_user(user, product, before, asked as i64).await?;
    finding.add(found, asked);
    Ok(())
}

/// All that the text may be: nobody has to say which.
async fn search_for(
    conn: &mut DbConn,
    finding: &mut Finding,
    (text, issuer): (&str, Option<&str>),
    product: Option<ProductId>,
    before: Uuid,
) -> DbResult<()> {
    if let Ok(id) = text.parse::<OrderId>()
        && Uuid::from(id) < before
    {
        finding.ids.insert(id.into());
    }
    let asked = finding.wanted;
    let paid = conn.orders_with_reference(text, before, asked as i64).await?;
    finding.add(paid, asked);
    let mut users = Vec::new();
    if let Ok(name) = Username::parse(text) {
        users.extend(conn.find_user_by_name(&name).await?.map(|account| account.id));
    }
    if let Some(issuer) = issuer {
        users.extend(conn.find_external_users(issuer, &[text.to_owned()]).await?.into_values().map(|user| user.id));
    }
    for user in users {
        of_user(conn, finding, user, product, before).await?;
    }
    Ok(())
}

/// The gaps are read before the lookup: what is filled in between is then found in both.
async fn look_up(
    conn: &mut DbConn,
    finding: &mut Finding,
    lists: &[i64],
    is_meant: impl Fn(&OrderPlace) -> bool + Send,
    before: Uuid,
) -> DbResult<()> {
    let mut gaps = conn.gaps_before(before, MAX_GAPS as i64 + 1).await?;
    if let Some(unread) = gaps.get(MAX_GAPS) {
        finding.ends_at(above(unread.last));
        gaps.truncate(MAX_GAPS);
    }
    let asked = finding.wanted;
    let found = conn.looked_up(lists, before, asked as i64).await?;
    finding.add(found, asked);
    let (single, wide): (Vec<Gap>, Vec<Gap>) = Gap::joined(gaps).into_iter().partition(|gap| gap.first == gap.last);
    let single: Vec<Uuid> = single.into_iter().map(|gap| gap.first).filter(|id| *id >= finding.floor).collect();
    if !single.is_empty() {
        let places = conn.places_of(&single).await?;
        finding.ids.extend(places.iter().filter(|place| is_meant(place)).map(|place| place.id));
    }
    let begun = Instant::now();
    let mut seen = 0;
    for (number, gap) in wide.iter().enumerate() {
        if number == MAX_WIDE_GAPS {
            finding.ends_at(above(gap.last));
        }
        let mut top = gap.last.min(below(before));
        while top >= gap.first.max(finding.floor) {
            let (places, is_cut) = conn.order_places(gap.first.max(finding.floor), top, CHUNK).await?;
            let meant = places.iter().filter(|place| is_meant(place)).map(|place| place.id);
            for id in meant {
                seen += 1;
                finding.ids.insert(id);
            }
            let Some(oldest) = places.last().filter(|_| is_cut) else { break };
            if seen >= finding.wanted || begun.elapsed() > PATIENCE {
                finding.ends_at(oldest.id);
            }
            top = below(oldest.id);
        }
    }
    Ok(())
}
