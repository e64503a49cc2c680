-- A shop's own table of orders, and the outbox that tells recharged of them: examples/python/outbox.py publishes its rows.
-- A row of the outbox is written in the transaction that changes the order, so neither is there without the other.

create table shop_orders (
    id         text        primary key,
    phone      text        not null, -- as the customer typed it; `region` says where that is a number
    region     text        not null default 'CN',
    price_fen  bigint      not null,
    status     text        not null default 'new' check (status in ('new', 'paid', 'cancelled')),
    payment_id text,
    created_at timestamptz not null default now(),
    paid_at    timestamptz
);

create table recharge_outbox (
    id         bigint generated always as identity primary key,
    event_id   text        not null unique, -- the same event has the same id, however often it is published
    event_type text        not null,
    order_id   text        not null,
    data       jsonb       not null,
    at         timestamptz not null default now()
);

-- RFC 3339, in UTC.
create function recharge_time(at timestamptz) returns text language sql immutable as $$
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

create function tell_recharged() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into recharge_outbox (event_id, event_type, order_id, data)
        values (new.id || '/created', 'recharge.order.created.v1', new.id, jsonb_strip_nulls(jsonb_build_object(
            'order_id', new.id, 'phone', new.phone, 'region', new.region, 'amount_minor', new.price_fen, 'currency', 'CNY',
            'created_at', recharge_time(new.created_at), 'paid_at', recharge_time(new.paid_at), 'payment_id', new.payment_id)));
    elsif old.status = 'new' and new.status = 'paid' then
        insert into recharge_outbox (event_id, event_type, order_id, data)
        values (new.id || '/paid', 'recharge.order.paid.v1', new.id, jsonb_strip_nulls(jsonb_build_object(
            'order_id', new.id, 'paid_at', recharge_time(new.paid_at), 'payment_id', new.payment_id)));
    elsif old.status = 'new' and new.status = 'cancelled' then
        insert into recharge_outbox (event_id, event_type, order_id, data)
        values (new.id || '/cancelled', 'recharge.order.cancelled.v1', new.id, jsonb_build_object('order_id', new.id));
    end if;
    return new;
end
$$;

create trigger tell_recharged after insert or update of status on shop_orders
    for each row execute function tell_recharged();
