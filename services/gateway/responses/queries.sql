-- name: begin
insert into response (tenant_id, id, previous_id, work_id, background, created_at, asked)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: expire
delete from response where created_at < $1;

-- name: finish
update response set answer = $2 where id = $1 and answer is null;

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
