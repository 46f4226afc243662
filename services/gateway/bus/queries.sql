-- name: known
select * from event where id = any($1::text[]);

-- name: reserve
insert into event_counter (tenant_id, last_sequence) values ($1, $2)
on conflict (tenant_id) do update set last_sequence = event_counter.last_sequence + $2
returning last_sequence;

-- name: append
insert into event (tenant_id, sequence, id, name, occurred_at, source, subject, session_id, agent, data)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: read
select * from event
where sequence > $1
  and (cardinality($2::text[]) = 0 or name = any($2) or exists (
    select from unnest($2::text[]) as pattern
    where pattern = '*' or (right(pattern, 2) = '.*' and starts_with(name, left(pattern, -1)))))
  and ($3 = '' or session_id = $3)
  and ($4::timestamptz is null or occurred_at >= $4) and ($5::timestamptz is null or occurred_at < $5)
order by sequence
limit $6;

-- name: last_sequence
select last_sequence from event_counter;

-- name: put
insert into webhook (tenant_id, id, url, display_name, event_names, format, sealed_secret, enabled, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (tenant_id, id) do update set
  url = excluded.url, display_name = excluded.display_name, event_names = excluded.event_names,
  format = excluded.format, enabled = excluded.enabled
returning *;

-- name: find
select * from webhook where id = $1;

-- name: every
select * from webhook order by id collate "C" limit 500;

-- name: delete_queued
delete from delivery_queue where tenant_id = $1 and webhook_id = $2;

-- name: delete
delete from webhook where id = $1 returning id;

-- name: add
insert into delivery (
  tenant_id, id, webhook_id, event_sequence, event_name, status, attempts, last_code, last_error, next_attempt_at,
  created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict do nothing
returning id;

-- name: enqueue
insert into delivery_queue (tenant_id, delivery_id, webhook_id, due_at) values ($1, $2, $3, $4)
on conflict (tenant_id, delivery_id) do update set due_at = excluded.due_at;

-- name: dequeue
delete from delivery_queue where tenant_id = $1 and delivery_id = $2;

-- name: claim
update delivery_queue as queue set due_at = $2
from (
  select tenant_id, delivery_id from delivery_queue
  where due_at <= $1 and webhook_id <> all($4::text[])
  order by due_at
  limit $3
  for update skip locked
) as due
where queue.tenant_id = due.tenant_id and queue.delivery_id = due.delivery_id
returning queue.tenant_id, queue.delivery_id, queue.webhook_id;

-- name: delivery
select * from delivery where id = $1;

-- name: record
update delivery set status = $2, attempts = $3, last_code = $4, last_error = $5, next_attempt_at = $6
where id = $1 returning webhook_id;

-- name: deliveries
select * from delivery
where webhook_id = $1 and ($2 = '' or status = $2)
  and ($3::timestamptz is null or (created_at, id) < ($3, $4))
order by created_at desc, id desc
limit $5;
