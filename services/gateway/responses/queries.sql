-- name: begin
insert into response (tenant_id, id, previous_id, work_id, background, created_at, asked)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: expire
delete from response where created_at < $1;

-- name: queue
insert into response_work (tenant_id, id, due_at) values ($1, $2, $3);

-- name: claim
update response_work w set due_at = $2, claims = w.claims + 1
from (
  select tenant_id, id from response_work where due_at <= $1 order by due_at limit $3 for update skip locked
) due
where w.tenant_id = due.tenant_id and w.id = due.id
returning w.tenant_id, w.id, w.claims;

-- name: renew
update response_work w set due_at = $1
from unnest($2::text[], $3::text[]) as mine(tenant_id, id)
where w.tenant_id = mine.tenant_id and w.id = mine.id
returning w.tenant_id, w.id;

-- name: note
insert into response_call (tenant_id, response_id, call, outcome)
select tenant_id, id, $2, $3 from response where id = $1 and answer is null
on conflict (tenant_id, response_id, call) do update set call = excluded.call
returning outcome;

-- name: noted
select call, outcome from response_call where response_id = $1;

-- name: finish
with ended as (
  update response set answer = $2 where id = $1 and answer is null returning tenant_id, id
), gone as (
  delete from response_work w using ended e where w.tenant_id = e.tenant_id and w.id = e.id
)
select count(*) from ended;

-- name: chain
with recursive link as (
  select *, 1 as depth from response where id = $1
  union all
  select response.*, link.depth + 1 from response
  join link on response.tenant_id = link.tenant_id and response.id = link.previous_id
  where link.depth < $2
)
select * from link order by depth desc;

-- name: forget
delete from response where id = $1;
