//! Takes over what nodes report of themselves and plans depend on: budgets, keys for links, and how
//! far they have counted. Many nodes in one transaction, with one new plan.

use std::collections::BTreeMap;

use haar_protocol::ids::NodeId;

use super::replan_above;
use crate::db::nodes::NodeRow;
use crate::db::{self, Write};
use crate::failure::Failure;
use crate::intake::{self, News};
use crate::site::Site;

/// Takes over what the last statuses of `nodes` say. Returns for each of them that is still there
/// the generation of the key for links that the site asks for now.
///
/// # Errors
/// When the database fails; nothing has changed then.
pub(crate) fn adopt(
    write: &Write<'_>,
    site: &Site,
    nodes: &[NodeId],
) -> Result<BTreeMap<NodeId, u64>, Failure> {
    let mut generations = BTreeMap::new();
    let mut above = BTreeMap::new();
    let mut is_plan_stale = false;
    for id in nodes {
        let Some(row) = db::nodes::by_id(&write.sql, id)? else {
            continue;
        };
        generations.insert(id.clone(), row.link_key_generation);
        let Some(last) = db::statuses::get(&write.sql, id)? else {
            continue;
        };
        let number = db::assignments::made(&write.sql, id)?.map_or(0, |made| made.number);
        let Some(news) = intake::news(&row, &last.status, number) else {
            continue;
        };
        is_plan_stale |= news.changes_plan();
        if let Some(generation) = news.link_key_generation {
            generations.insert(id.clone(), generation);
        }
        if let Some(seen) = news.above {
            above.insert(id.clone(), seen);
        }
        take(write, &row, news)?;
    }
    if is_plan_stale {
        replan_above(write, site, None, &above)?;
    }
    Ok(generations)
}

fn take(write: &Write<'_>, row: &NodeRow, news: News) -> Result<(), Failure> {
    let (sql, id) = (&write.sql, &row.id);
    if let Some(budget) = &news.budget {
        db::nodes::set_budget(sql, id, budget)?;
    }
    if let Some(key) = &news.link_key {
        db::nodes::set_link_key(sql, id, key)?;
        if row.link_key.is_some() {
            let what = format!("{id} uses another key for its links: {key}");
            write.node_event("link_key_changed", row.name.as_str(), &what)?;
        }
    }
    if let Some(generation) = news.link_key_generation {
        db::nodes::set_link_key_generation(sql, id, generation)?;
    }
    Ok(())
}
