-- A case of its own for what a callback says against an order, and its provider did not confirm when it was asked. A check
-- cannot be changed here: the table is made anew.
create table cases_anew (
    order_id          text    not null,
    kind              text    not null check (kind in (
        'in_doubt', 'payload_conflict', 'late_success', 'conflict', 'reversed_after_success', 'provider_flipped',
        'double_success', 'amount_mismatch', 'failed_unproven', 'unconfirmed')),
    state             text    not null default 'open' check (state in ('open', 'resolved')),
    opened_at         integer not null,
    escalate_at       integer not null,
    next_query_at     integer,
    evidence          text    not null,
    owner             text,
    escalated         integer not null default 0 check (escalated in (0, 1)),
    resolved_at       integer,
    resolved_by       text,
    resolved_evidence text,
    primary key (order_id, kind),
    constraint resolved_is_explained check (
        (state = 'resolved') = (resolved_at is not null) and (state = 'resolved') = (resolved_by is not null)
        and (state = 'resolved') = (resolved_evidence is not null))
) strict, without rowid;
insert into cases_anew
select order_id, kind, state, opened_at, escalate_at, next_query_at, evidence, owner, escalated, resolved_at, resolved_by,
       resolved_evidence
from cases;
drop table cases;
alter table cases_anew rename to cases;

create index cases_next_query_at on cases (next_query_at) where next_query_at is not null;
create index cases_escalate_at on cases (escalate_at) where state = 'open' and escalated = 0;
