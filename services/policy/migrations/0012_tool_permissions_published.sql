-- What is enforced is read for all tenants at once, and who may call their tools is a part of it.
create policy every_tenant on tool_permission for select using (current_setting('app.tenant', true) = '*');
