//! The store's adapters: one suite for both, and what only Postgres can do wrong.

pub(crate) mod fixture;
mod laws;
mod migrations;
pub(crate) mod place;
mod postgres;
mod quota;

/// Runs each of the named functions on both adapters.
macro_rules! on_every_adapter {
    ($($law:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                let place = crate::store::place::Place::postgres().await;
                super::$law(&place).await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                let place = crate::store::place::Place::sqlite().await;
                super::$law(&place).await;
            })+
        }
    };
}
pub(crate) use on_every_adapter;
