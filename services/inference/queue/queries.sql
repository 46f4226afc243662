-- name: submit
with added as (
  insert into submitted_generation (tenant_id, id, subject, roles, kind, claim, request)
  values ($1, $2, $3, $4, $5, $6, $7)
  on conflict do nothing
  returning tenant_id, id
)
insert into generation_queue (tenant_id, id) select tenant_id, id from added;

-- name: find
select s.*, q.owner <> '' and q.expires_at > clock_timestamp() as running
from submitted_generation s left join generation_queue q using (tenant_id, id)
where s.tenant_id = $1 and s.id = $2;

-- name: list
select s.id, s.created_at, s.runs, s.succeeded, s.ended_at, ''::bytea as outcome,
  q.owner <> '' and q.expires_at > clock_timestamp() as running
from submitted_generation s left join generation_queue q using (tenant_id, id)
where s.tenant_id = $1 and not ($2 and s.ended_at is not null)
  and ($3::timestamptz is null or (s.created_at, s.id) < ($3, $4))
order by s.created_at desc, s.id desc
limit $5;

-- name: depth
select count(*) filter (where expires_at <= clock_timestamp()) as waiting,
  count(*) filter (where expires_at > clock_timestamp()) as running,
  greatest(clock_timestamp() - min(ready_at) filter (where expires_at <= clock_timestamp()), '0') as oldest
from generation_queue;

-- name: claim
with waiting as (
  select tenant_id, id, row_number() over (partition by tenant_id order by ready_at, id) as place, ready_at
  from (
    select tenant_id, id, ready_at from generation_queue
    where expires_at < clock_timestamp() and ready_at <= clock_timestamp()
    order by ready_at
    limit 2000
  ) oldest
), chosen as (
  select q.tenant_id, q.id
  from generation_queue q join waiting w using (tenant_id, id)
  where q.expires_at < clock_timestamp()
  order by w.place, w.ready_at
  limit $3
  for update of q skip locked
)
update generation_queue q
set owner = $1, fence = q.fence + 1, expires_at = clock_timestamp() + $2::interval
from chosen c
where q.tenant_id = c.tenant_id and q.id = c.id
returning q.tenant_id, q.id, q.fence;

-- name: renew
update generation_queue q set expires_at = clock_timestamp() + $2::interval
from unnest($3::text[], $4::text[], $5::bigint[]) as mine(tenant_id, id, fence)
where q.tenant_id = mine.tenant_id and q.id = mine.id and q.fence = mine.fence and q.owner = $1
  and q.expires_at > clock_timestamp()
returning q.tenant_id, q.id;

-- name: held
select 1 from generation_queue
where tenant_id = $1 and id = $2 and owner = $3 and fence = $4 and expires_at > clock_timestamp()
for update;

-- name: begin
update submitted_generation set runs = runs + 1
where tenant_id = $1 and id = $2 and ended_at is null
returning subject, roles, kind, claim, request, runs;

-- name: end
update submitted_generation set succeeded = $3, outcome = $4, ended_at = clock_timestamp()
where tenant_id = $1 and id = $2 and ended_at is null
returning id;

-- name: leave
delete from generation_queue where tenant_id = $1 and id = $2;

-- name: again
update generation_queue set owner = '', expires_at = '-infinity', ready_at = clock_timestamp() + $5::interval
where tenant_id = $1 and id = $2 and owner = $3 and fence = $4;

-- name: waits
select 1 from generation_queue
where tenant_id = $1 and id = $2 and (owner = '' or expires_at < clock_timestamp())
for update;

-- name: forget
delete from submitted_generation where tenant_id = $1 and ended_at < clock_timestamp() - $2::interval;
