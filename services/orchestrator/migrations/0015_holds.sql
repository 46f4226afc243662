-- A yes to what rules of policy hold names the override that it made.
alter table signal add column override_id text not null default '';

drop function runs_signals(text[], text[]);
create function runs_signals(p_tenants text[], p_sessions text[])
returns table (run int, id text, kind text, sender text, target text, content text, approved boolean, override_id text)
language plpgsql as $$
declare
  v_tenant text;
begin
  for v_tenant in select distinct t from unnest(p_tenants) t loop
    perform set_config('app.tenant', v_tenant, true);
    return query
      select r.place::int, g.id, g.kind, g.sender, g.target, g.content, g.approved, g.override_id
      from unnest(p_tenants, p_sessions) with ordinality as r(tenant, session, place)
      join signal g on g.tenant_id = r.tenant and g.session_id = r.session
      where r.tenant = v_tenant
      order by r.place, g.created_at, g.id;
  end loop;
end $$;
