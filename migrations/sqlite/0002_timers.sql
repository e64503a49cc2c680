-- What is to be told of an order at a moment of its own, as in Postgres.
create table timers (
    due_at   integer not null,
    order_id text    not null,
    kind     text    not null check (kind in ('notification')),
    primary key (order_id, kind)
) strict, without rowid;

create index timers_due_at on timers (due_at, order_id);

-- What is told beside a version's transition stands under the same version.
alter table order_events add column beside integer not null default 0;
drop index order_events_timeline;
create unique index order_events_timeline on order_events (order_id, version, beside);
