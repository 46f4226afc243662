-- name: lock_relationships
select pg_advisory_xact_lock(hashtextextended('relationship/' || $1 || '/' || $2, 0));

-- name: relationships_of_kind
select data from agent_relationship where kind = $1;

-- name: put_relationship
insert into agent_relationship (tenant_id, id, source, target, kind, priority, data) values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, source, target, kind) do update set priority = excluded.priority, data = excluded.data;

-- name: every_relationship
select data from agent_relationship
where ($1::text = '' or source = $1 or target = $1) and ($2::text = '' or kind = $2)
order by priority desc, source collate "C", target collate "C", kind;

-- name: delete_relationship
delete from agent_relationship where id = $1 returning id;

-- name: delegation_of_request
select data from delegation where request_id = $1;

-- name: lock_delegation
select data from delegation where id = $1 for update;

-- name: taken_below
select coalesce(sum(case when state = 1 then budget_micros_usd else cost_micros_usd end), 0)::bigint
from delegation where parent_id = $1;

-- name: open_delegation
insert into delegation (tenant_id, id, parent_id, agent_name, session_id, conversation_id, state, budget_micros_usd,
  cost_micros_usd, request_id, data, created_at, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11, $12)
on conflict do nothing
returning id;

-- name: find_delegation
select data from delegation where id = $1;

-- name: every_delegation
select data from delegation
where ($1::text = '' or parent_id = $1) and ($2::text = '' or agent_name = $2)
  and ($3::text = '' or conversation_id = $3) and ($4::int = 0 or state = $4)
  and ($5::timestamptz is null or (created_at, id) < ($5, $6))
order by created_at desc, id desc
limit $7;

-- name: running_delegations
select agent_name, count(*) as running from delegation where state = 1 and expires_at > $1 group by agent_name;

-- name: end_delegation
update delegation set state = $2, cost_micros_usd = $3, data = $4 where id = $1 and state = 1 returning id;

-- name: delegation_spent
update delegation set cost_micros_usd = $2, data = $3 where id = $1 and state <> 1;

-- name: delegations_below
with recursive tree as (
  select id, 0 as depth from delegation where id = $1
  union all
  select d.id, t.depth + 1 from delegation d join tree t on d.parent_id = t.id
)
select d.data from delegation d join tree t on t.id = d.id
order by t.depth, d.created_at, d.id
for update of d;

-- name: add_template
insert into agent_template (tenant_id, name, version, domain, data) values ($1, $2, $3, $4, $5)
on conflict (tenant_id, name, version) do nothing
returning name;

-- name: every_template
select data from agent_template order by name collate "C", version collate "C";

-- name: use_template
insert into agent_template_use (tenant_id, name, version, uses) values ($1, $2, $3, 1)
on conflict (tenant_id, name, version) do update set uses = agent_template_use.uses + 1;

-- name: template_uses
select name, version, uses from agent_template_use;
