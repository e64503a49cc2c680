//! The store of the simulation keeps the laws that both adapters of the service keep: the very suite of
//! `tests/it/store`.

#[path = "../it/store/fixture.rs"]
mod fixture;
#[path = "../it/store/laws/mod.rs"]
mod laws;
#[path = "../it/store/quota.rs"]
mod quota;

mod place {
    use std::sync::Arc;

    use recharged::ports::Store;

    use super::fixture::Refunded;
    use crate::laws::Findings;
    use crate::life::{PRECISION, TrueTime};
    use crate::provider::terms;
    use crate::store::MemStore;
    use crate::weather::{Rates, Strikes};

    pub(crate) struct Place {
        pub(crate) store: Arc<dyn Store>,
        memory: Arc<MemStore>,
    }

    impl Place {
        pub(crate) fn in_memory() -> Self {
            let (strikes, findings) = (Arc::new(Strikes::default()), Arc::new(Findings::default()));
            // The suite writes in ways in which no role does: only its own expectations count.
            strikes.heal();
            let duplicates = recharged::domain::DuplicateSemantics::RejectsAlways;
            let time = Arc::new(TrueTime::new(PRECISION));
            let memory = Arc::new(MemStore::new(time, 1, Rates::default(), strikes, findings, terms(duplicates)));
            Self { store: Arc::<MemStore>::clone(&memory), memory }
        }

        pub(crate) async fn orders(&self) -> u64 {
            self.store.count_by_state().await.unwrap().iter().map(|(_, count)| count).sum()
        }

        #[allow(clippy::unused_async, reason = "as the others have it")]
        pub(crate) async fn entries(&self) -> Vec<String> {
            self.memory.log().iter().map(|event| event.order_id.to_string()).collect()
        }

        #[allow(clippy::unused_async, reason = "as the others have it")]
        pub(crate) async fn refunds(&self) -> Vec<Refunded> {
            let state = self.memory.state.lock().unwrap();
            let refunds = state.refunds.iter().flat_map(|(id, refunds)| refunds.iter().map(move |refund| (id, refund)));
            refunds
                .map(|(id, refund)| Refunded {
                    order_id: id.to_string(),
                    payment_id: refund.payment_id.as_deref().map(str::to_owned),
                    amount_minor: refund.amount.minor,
                    currency: refund.amount.currency.to_string(),
                    reason: refund.reason.as_str().to_owned(),
                })
                .collect()
        }
    }
}

/// Runs each of the named functions on the store in memory.
macro_rules! on_every_adapter {
    ($($law:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                let place = crate::conformance::place::Place::in_memory();
                super::$law(&place).await;
            })+
        }
    };
}
use on_every_adapter;
