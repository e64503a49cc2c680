-- The embedded store: the same tables and rules as in Postgres, for one machine. Times are
-- microseconds since 1970; forward only, never edited after its release.

create table orders (
    order_id         text    primary key not null,
    version          integer not null check (version >= 1),
    state            text    not null check (state in (
        'awaiting_payment', 'queued', 'in_flight', 'retry_wait', 'in_doubt', 'succeeded', 'failed', 'cancelled')),
    asked_version    integer not null check (asked_version between 0 and version),
    phone            text    not null,
    amount_minor     integer not null check (amount_minor >= 0),
    currency         text    not null check (length(currency) = 3),
    carrier          text,
    created_at       integer not null,
    paid_at          integer,
    payment_id       text,
    notify           integer not null check (notify in (0, 1)),
    metadata         text,
    deadline_at      integer not null,
    provider         text,
    attempt          integer check (attempt >= 1),
    attempt_state    text    check (attempt_state in (
        'prepared', 'sent', 'accepted', 'unknown', 'succeeded', 'failed', 'not_executed', 'written_off')),
    client_ref       text, -- where it is not `order_id-attempt`
    claim_id         text,
    claimed_at       integer,
    provider_ref     text,
    inquiry          text,
    declined         integer not null check (declined >= 0),
    wake_at          integer,
    held_until       integer, -- whoever asks the provider about it is alone until then; in no log
    held_version     integer, -- the asked_version at that hold
    reason           text,
    sla              text    check (sla in ('met', 'missed')),
    closed_at        integer,
    refund_requested integer not null check (refund_requested in (0, 1)),
    cases            integer not null check (cases >= 0),

    constraint amount_can_be_recharged check (
        amount_minor > 0 or state in ('awaiting_payment', 'failed', 'cancelled')),
    constraint attempt_is_whole check (
        (attempt is null) = (attempt_state is null) and (attempt is not null or client_ref is null)
        and (attempt is null) = (claim_id is null) and (attempt is null) = (claimed_at is null)),
    constraint closed_has_its_time check ((closed_at is not null) = (state in ('succeeded', 'failed', 'cancelled'))),
    constraint failed_has_no_open_attempt check (
        state <> 'failed' or attempt_state is null or attempt_state not in ('sent', 'accepted', 'unknown')),
    constraint refund_of_a_payment check (refund_requested = 0 or paid_at is not null),
    constraint doubt_has_a_case check (state <> 'in_doubt' or cases <> 0)
) strict;

-- The watchdog reads in deadline order, from its low-water mark.
create index orders_deadline_at on orders (deadline_at);

-- There is one writer at a time, so the numbers of the log rise in the order of commits. They are
-- never used again, also after retention has deleted the newest.
create table order_events (
    seq      integer primary key autoincrement,
    version  integer not null check (version >= 1),
    order_id text    not null,
    entry    text    not null -- JSON: what happened, when, and what changed
) strict;

-- A person reads one order's timeline; and a version is written once.
create unique index order_events_timeline on order_events (order_id, version);

create table relay_cursor (
    only_one integer primary key default 1 check (only_one = 1),
    seq      integer not null
) strict;
insert into relay_cursor (seq) values (0);

-- One refund an order at most, by its key.
create table refunds (
    order_id     text    primary key not null,
    payment_id   text,
    amount_minor integer not null check (amount_minor >= 0),
    currency     text    not null check (length(currency) = 3),
    reason       text    not null,
    requested_at integer not null,
    state        text    not null default 'requested' check (state in ('requested', 'confirmed', 'rejected')),
    refund_id    text,
    settled_at   integer,
    constraint settled_has_its_time check ((settled_at is not null) = (state <> 'requested'))
) strict;

-- At most one of a kind for an order, by its key.
create table cases (
    order_id          text    not null,
    kind              text    not null check (kind in (
        'in_doubt', 'payload_conflict', 'late_success', 'conflict', 'reversed_after_success', 'provider_flipped',
        'double_success', 'amount_mismatch', 'failed_unproven')),
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

create index cases_next_query_at on cases (next_query_at) where next_query_at is not null;
create index cases_escalate_at on cases (escalate_at) where state = 'open' and escalated = 0;

-- One row a provider; nanoseconds since 1970.
create table quota_cells (
    provider              text    primary key not null,
    tat_ns                integer not null default 0,
    fresh_tat_ns          integer not null default 0,
    retry_tat_ns          integer not null default 0,
    query_tat_ns          integer not null default 0,
    fresh_active_until_ns integer not null default 0,
    retry_active_until_ns integer not null default 0,
    query_active_until_ns integer not null default 0,
    paused_until_ns       integer not null default 0
) strict;

-- Every order with a deadline before the mark is decided: the watchdog reads from there.
create table watchdog (
    only_one  integer primary key default 1 check (only_one = 1),
    low_water integer not null
) strict;
insert into watchdog (low_water) values (0);

-- How far the lanes have read their topics.
create table read_marks (
    topic     text    not null,
    partition integer not null,
    up_to     integer not null,
    primary key (topic, partition)
) strict, without rowid;
