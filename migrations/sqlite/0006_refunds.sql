-- The refund that the payment side has confirmed, and when a person must hear that it was not, as in Postgres.
alter table orders add column refund_id text;
alter table refunds add column confirm_by integer;
create index refunds_confirm_by on refunds (confirm_by, order_id) where confirm_by is not null;

-- SQLite changes no constraint of a table that is there: the same table with the new kinds takes its place.
create table cases_anew (
    order_id          text    not null,
    kind              text    not null check (kind in (
        'in_doubt', 'payload_conflict', 'late_success', 'conflict', 'reversed_after_success', 'provider_flipped',
        'double_success', 'amount_mismatch', 'failed_unproven', 'unconfirmed', 'unrequested_refund', 'refunded_twice',
        'refund_unconfirmed')),
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
insert into cases_anew select * from cases;
drop table cases;
alter table cases_anew rename to cases;
create index cases_next_query_at on cases (next_query_at) where next_query_at is not null;
create index cases_escalate_at on cases (escalate_at) where state = 'open' and escalated = 0;
