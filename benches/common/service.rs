//! The service as it is, with a provider inside the process in place of a real one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use async_trait::async_trait;
use recharged::app::{self, Plan, Role};
use recharged::config::Config;
use recharged::domain::{Capabilities, ProviderId, QueryOutcome, Receipt, SubmitOutcome};
use recharged::lifecycle::signals;
use recharged::ports::{QueryKey, RechargeProvider, SubmitRequest};

use crate::common::child::{ChildArguments, Subject};
use crate::common::scratch::LANE;

/// Runs until SIGTERM.
pub(crate) fn run(path: &Path, arguments: &ChildArguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(path, arguments.subject()))
}

async fn serve(path: &Path, subject: Subject) -> Result<()> {
    let loaded = Config::load(Some(path), [], &[]).map_err(|problems| anyhow!("{problems:?}"))?;
    let secrets = loaded.secrets([]).map_err(|problems| anyhow!("{problems:?}"))?;
    let config = loaded.config;
    recharged::telemetry::init(&config.log)?;
    let id = ProviderId::new(LANE);
    let settings = config.providers.get(LANE).context("the configuration lacks the lane")?;
    let stub = Stub { id: id.clone(), capabilities: settings.contract(), answer_after: subject.answer_after };
    let providers = [(id, Arc::new(stub) as Arc<dyn RechargeProvider>)].into();
    let roles = Role::ALL.into_iter().filter(|role| subject.watchdog || *role != Role::Watchdog).collect();
    let plan = Plan { config, secrets, roles, embedded_broker: false, providers: Some(providers) };
    let outcome = app::run(plan, &mut signals()?).await?;
    if outcome.is_clean() { Ok(()) } else { bail!("the service did not end well: {outcome:?}") }
}

/// Delivers everything, after a while.
#[derive(Debug)]
struct Stub {
    id: ProviderId,
    capabilities: Capabilities,
    answer_after: Duration,
}

#[async_trait]
impl RechargeProvider for Stub {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn connect(&self, wanted: usize) -> usize {
        wanted
    }

    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome {
        if !self.answer_after.is_zero() {
            tokio::time::sleep(self.answer_after).await;
        }
        let provider_ref = Some(format!("p-{}", request.client_ref));
        SubmitOutcome::Succeeded(Receipt { provider_ref, delivered: None, delivered_at: None })
    }

    async fn query(&self, _key: &QueryKey) -> QueryOutcome {
        QueryOutcome::NotFound
    }

    fn read_callback(
        &self,
        _callback: &recharged::ports::RawCallback,
        _now: recharged::domain::Timestamp,
    ) -> Result<recharged::ports::CallbackNews, recharged::ports::CallbackRefusal> {
        Err(recharged::ports::CallbackRefusal::Forged)
    }
}
